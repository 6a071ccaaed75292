"""sendmail in a private root, its configuration made with its own m4 macros.

Deviations from its defaults: queueing and refusing by load average are off, as they would stop it in a benchmark; a
listen queue of 1000 instead of 10, or clients wait whole seconds to connect again; no
lookup of names (nocanonify, accept_unresolvable_domains, host names from files only), as no other server here does any.
"""

from __future__ import annotations

from peers.peer import DOMAIN, MAX_MESSAGE_BYTES, RECIPIENT
from peers.private_root import PrivateRoot

MACROS = """\
divert(-1)
divert(0)dnl
VERSIONID(`bench')dnl
OSTYPE(`linux')dnl
define(`confDOMAIN_NAME', `sendmail.example.test')dnl
define(`QUEUE_DIR', `/var/spool/mqueue')dnl
define(`STATUS_FILE', `/var/spool/mqueue/statistics')dnl
define(`confPID_FILE', `/var/spool/mqueue/pid')dnl
define(`confMAX_MESSAGE_SIZE', `{limit}')dnl
define(`confQUEUE_LA', `10000')dnl
define(`confREFUSE_LA', `10000')dnl
define(`confDELAY_LA', `10000')dnl
define(`confTO_IDENT', `0s')dnl
define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch-nodns')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
define(`confDONT_BLAME_SENDMAIL', `groupwritabledirpathsafe')dnl
define(`RELAY_MAILER_ARGS', `TCP $h {sink_port}')dnl
define(`SMART_HOST', `relay:[127.0.0.1]')dnl
define(`ALIAS_FILE', `')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`access_db', `hash /etc/mail/access')dnl
FEATURE(`blacklist_recipients')dnl
RELAY_DOMAIN(`{domain}')dnl
DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr=127.0.0.1, Port={port}, Listen=1000')dnl
MAILER(`smtp')dnl
"""
ACCESS = f'To:{RECIPIENT} OK\nTo:{DOMAIN} ERROR:5.1.1:"550 unknown user"\n'


class Sendmail(PrivateRoot):
    """One process for each session, one for each delivery."""

    name = "sendmail"
    package = "sendmail-bin"
    queue_path = "/var/spool/mqueue"
    accounts = (("smmta", 993), ("smmsp", 994))
    idle_limit = 1000
    idle_note = "a process for each session"

    def configure_server(self) -> list[str]:
        text = MACROS.format(limit=MAX_MESSAGE_BYTES, sink_port=self.sink_port, domain=DOMAIN, port=self.port)
        self.write("/etc/mail/bench.mc", text)
        self.write("/etc/mail/access", ACCESS)
        self.write("/etc/mail/service.switch-nodns", "hosts files\naliases files\npasswd files\n")
        self.write("/etc/mail/local-host-names", "")
        macros = "cd /usr/share/sendmail/cf/cf && m4 -D_CF_DIR_=/usr/share/sendmail/cf/ ../m4/cf.m4 /etc/mail/bench.mc"
        self.write("/etc/mail/sendmail.cf", self.run_inside(["sh", "-c", macros]))
        self.run_inside(["sh", "-c", "makemap hash /etc/mail/access </etc/mail/access"])
        self.own_queue(0, 0o700)
        return ["/usr/libexec/sendmail/sendmail", "-bD", "-q1m", "-C", "/etc/mail/sendmail.cf"]
