"""What each name of a sendmail.mc means here: tables, no code. A name that is in none of them is told as unknown.

Rows: NUMBER and TIME set a number of our configuration; UNUSED, NEAR and NO say why something was not taken as it is. What needs
more than a row is a method of the importer (`sendmail_mc.py`).
"""

from __future__ import annotations


def _rows(names: str, note: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), note)


# name -> (key, factor)
NUMBERS: dict[str, tuple[str, int]] = {
    "confMAX_MESSAGE_SIZE": ("smtp.max_message_bytes", 1),
    "confMAX_RCPTS_PER_MESSAGE": ("smtp.max_recipients", 1),
    "confMAX_HOP": ("smtp.max_received_hops", 1),
    "confMAX_HEADERS_LENGTH": ("smtp.max_header_bytes", 1),
    "confMAX_NOOP_COMMANDS": ("smtp.max_idle_commands", 1),
}
# name -> (key, unit of a bare number, exact)
TIMES: dict[str, tuple[str, str, bool]] = {
    "confTO_QUEUERETURN": ("queue.lifetime_s", "d", True),
    "confTO_QUEUERETURN_NORMAL": ("queue.lifetime_s", "d", True),
    "confTO_QUEUERETURN_DSN": ("queue.dsn_lifetime_s", "d", True),
    "confTO_QUEUEWARN": ("queue.delay_notice_s", "h", True),
    "confTO_QUEUEWARN_NORMAL": ("queue.delay_notice_s", "h", True),
    "confMIN_QUEUE_AGE": ("queue.retry_min_s", "m", True),
    "confTO_CONNECT": ("delivery.connect_timeout_s", "m", True),
    "confTO_INITIAL": ("delivery.greeting_timeout_s", "m", True),
    "confTO_DATABLOCK": ("delivery.data_block_timeout_s", "m", True),
    "confTO_DATAFINAL": ("delivery.data_end_timeout_s", "m", True),
    "confTO_RCPT": ("delivery.command_timeout_s", "m", False),
    "confTO_COMMAND": ("smtp.command_timeout_s", "m", True),
    "confTO_STARTTLS": ("tls.handshake_timeout_s", "m", True),
}

_LOCAL = "no mail is delivered into mailboxes here"
_CLIENT = "the program that submits mail is not part of this configuration"
_OWN = "the gateway has its own way, which needs no setting"
_LOOK = "it is about files, processes or logs of sendmail"

UNUSED: dict[str, str] = {
    **_rows(
        "confALIAS_WAIT confAUTO_REBUILD confCHECK_ALIASES confBIFF confDEF_USER_ID confDEF_GROUP_ID confFORWARD_PATH "
        "confLOCAL_MAILER confMAILBOX_DATABASE confMATCH_GECOS confME_TOO confSAFE_FILE_ENV confDEAD_LETTER_DROP "
        "confSAVE_FROM_LINES confFROM_LINE confUSERDB_SPEC confEBINDIR LOCAL_MAILER_PATH LOCAL_MAILER_ARGS LOCAL_MAILER_FLAGS "
        "LOCAL_MAILER_MAX LOCAL_SHELL_PATH LOCAL_SHELL_ARGS LOCAL_SHELL_FLAGS LOCAL_SHELL_DIR PROCMAIL_MAILER_PATH "
        "PROCMAIL_MAILER_ARGS USENET_MAILER_PATH UUCP_MAILER_ARGS UUCP_MAILER_PATH CYRUS_MAILER_PATH confUUCP_MAILER "
        "confMAX_ALIAS_RECURSION",
        _LOCAL,
    ),
    **_rows(
        "confDONT_INIT_GROUPS confDF_BUFFER_SIZE confXF_BUFFER_SIZE confFAST_SPLIT confMAX_QUEUE_CHILDREN "
        "confMAX_QUEUE_RUN_SIZE confMAX_RUNNERS_PER_QUEUE confMCI_CACHE_SIZE confMCI_CACHE_TIMEOUT confNICE_QUEUE_RUN "
        "confQUEUE_FACTOR confQUEUE_SORT_ORDER confWORK_CLASS_FACTOR confWORK_RECIPIENT_FACTOR confWORK_TIME_FACTOR "
        "confSEPARATE_PROC confSINGLE_THREAD_DELIVERY confCHECKPOINT_INTERVAL confQUEUE_LA confREFUSE_LA confDELAY_LA "
        "confSAFE_QUEUE confREQUIRES_DIR_FSYNC confDELIVERY_MODE confRRT_IMPLIES_DSN confTO_ACONNECT confTO_HOSTSTATUS "
        "confTO_FILEOPEN confTO_CONTROL confTO_RESOLVER_RETRANS confTO_RESOLVER_RETRANS_FIRST confTO_LHLO confTO_AUTH "
        "confTO_RESOLVER_RETRANS_NORMAL confTO_RESOLVER_RETRY confTO_RESOLVER_RETRY_FIRST confTO_RESOLVER_RETRY_NORMAL "
        "confTRY_NULL_MX_LIST confDONT_EXPAND_CNAMES confDONT_PRUNE_ROUTES confBIND_OPTS confSHARED_MEMORY_KEY "
        "confSHARED_MEMORY_KEY_FILE confRAND_FILE confUSE_COMPRESSED_IPV6_ADDRESSES confDIAL_DELAY confCON_EXPENSIVE "
        "confDELIVER_BY_MIN confOLD_STYLE_HEADERS confOPERATORS confMUST_QUOTE_CHARS confDEQUOTE_OPTS confBLANK_SUB "
        "confCOLON_OK_IN_ADDR confTO_ confTO_MISC confTO_MAIL confTO_HELO confTO_RSET confTO_QUIT confTO_DATAINIT "
        "confTO_ICONNECT confIGNORE_DOTS confSINGLE_LINE_FROM_HEADER confREJECT_NUL confREJECT_LOG_INTERVAL "
        "confTO_QUEUERETURN_URGENT confTO_QUEUERETURN_NONURGENT confTO_QUEUEWARN_URGENT confTO_QUEUEWARN_NONURGENT "
        "confTO_QUEUEWARN_DSN confSMTP_MAILER confRELAY_MAILER SMTP_MAILER_FLAGS SMTP_MAILER_MAX SMTP_MAILER_ARGS "
        "RELAY_MAILER_FLAGS ESMTP_MAILER_ARGS confMAX_QUEUE_AGE confALLOW_BOGUS_HELO confDONT_PROBE_INTERFACES",
        _OWN,
    ),
    **_rows(
        "confCONTROL_SOCKET_NAME confHOST_STATUS_DIRECTORY confLOG_LEVEL confPID_FILE confPROCESS_TITLE_PREFIX confTEMP_FILE_MODE "
        "confQUEUE_FILE_MODE confTIME_ZONE STATUS_FILE HELP_FILE QUEUE_DIR MSP_QUEUE_DIR confHOSTS_FILE confSERVICE_SWITCH_FILE "
        "confCF_VERSION confMILTER_LOG_LEVEL confERROR_MODE confTRUSTED_USER confTRUSTED_USERS confRUN_AS_USER confUSE_MSP "
        "_USE_ETC_MAIL_ DEBIAN_MTA MAIL_SETTINGS_DIR DATABASE_MAP_TYPE CF_LEVEL confMAILER_NAME confLDAP_CLUSTER "
        "confUNSAFE_GROUP_WRITES confDIRECT_SUBMISSION_MODIFIERS confSSL_ENGINE confSSL_ENGINE_PATH confCT_FILE",
        _LOOK,
    ),
    **_rows(
        "confTO_IDENT confUSE_ERRORS_TO confERROR_MESSAGE confMIME_FORMAT_ERRORS confDEF_CHAR_SET confSEVEN_BIT_INPUT "
        "confEIGHT_BIT_HANDLING confMAX_MIME_HEADER_LENGTH confFROM_HEADER confMESSAGEID_HEADER confRECEIVED_HEADER "
        "confNO_RCPT_ACTION confDH_PARAMETERS confCERT_FINGERPRINT_ALGORITHM confCRL confCRL_PATH",
        "messages are passed on as they are, and there is no ident",
    ),
}

# name -> (how it differs, what to do)
NEAR: dict[str, tuple[str, str]] = {
    "confSMTP_LOGIN_MSG": ("the greeting is the host name and nothing else", ""),
    "confCONNECTION_RATE_THROTTLE": ("new connections are limited for each client, not in all", "see ClientRate: in the access table"),
    "confCONNECTION_RATE_WINDOW_SIZE": ("the window is one minute", ""),
    "confREJECT_MSG": ("the text is fixed; a single line may have its own, with ERROR:5.7.1:550 text", ""),
    "confRCPTREJ_MSG": ("the text is fixed", ""),
    "confRELAY_MSG": ("the text is fixed", ""),
    "confDOUBLE_BOUNCE_ADDRESS": ("a bounce that cannot be delivered is dropped, and is in the events", ""),
    "confCOPY_ERRORS_TO": ("bounces are in the events; no copy is sent", "watch for the events bounced and expired"),
    "confAUTH_MECHANISMS": ("the mechanisms are those of [auth]", "gatepost check lists them"),
    "confAUTH_OPTIONS": ("passwords never go in clear, which is what the option p asks for", ""),
    "confAUTH_MAX_BITS": ("there are no security layers besides TLS", ""),
    "confAUTH_REALM": ("there is one realm", ""),
    "confCIPHER_LIST": ("the ciphers are those of [tls]", "write tls.ciphers if other ones are wanted"),
    "confSERVER_SSL_OPTIONS": ("the versions are those of [tls]", "write tls.min_version"),
    "confCLIENT_SSL_OPTIONS": ("the versions are those of [tls]", "write tls.min_version"),
    "confTLS_SRV_OPTIONS": ("a certificate of the client is asked for only with tls.client_certificates", ""),
    "confTLS_FALLBACK_TO_CLEAR": ("outgoing TLS is opportunistic", "write tls.policies for hosts that must have it"),
    "confCACERT_PATH": ("the authorities are those of the system", "write tls.ca_file for others"),
    "confCACERT": ("the authorities are those of the system", "write tls.ca_file for others"),
    "confCLIENT_CERT": ("no client certificate is shown to other servers", ""),
    "confCLIENT_KEY": ("no client certificate is shown to other servers", ""),
    "confSOFT_BOUNCE": ("refusals are final", "set rules to shadow while testing"),
    "confCONNECT_ONLY_TO": ("mail goes where the routes say", "write relay.next_hop"),
    "confINPUT_MAIL_FILTERS": ("no filter is configured by the import", "see the documentation of scanners"),
    "confDEF_AUTH_INFO": ("passwords for other servers are not imported", "see AuthInfo below"),
    **{
        f"confMILTER_MACROS_{name}": ("no filter is configured by the import", "")
        for name in ("CONNECT", "HELO", "ENVFROM", "ENVRCPT", "DATA", "EOH", "EOM")
    },
}  # fmt: skip

# name -> (why, the safe alternative)
NO: dict[str, tuple[str, str]] = {
    "confDONT_BLAME_SENDMAIL": (
        "the checks of file permissions cannot be switched off",
        "mend the files that gatepost check names, or write an [[exceptions]] with an owner and a last day",
    ),
    "confLDAP_DEFAULT_SPEC": (
        "LDAP is not imported",
        'write [sources.NAME] with type = "ldap", its servers, base and filter',
    ),
    "confFALLBACK_MX": ("there is no host of last resort", "write a second next hop for the domains that need one"),
    "confFALLBACK_SMARTHOST": ("there is no host of last resort", "write a second relay.next_hop, or a pool"),
    "LUSER_RELAY": (
        "unknown local users are refused here, not passed on",
        "list the recipients, or name the host as next_hop of the domain",
    ),
    "BITNET_RELAY": ("there is no BITNET", "remove it"),
    "DECNET_RELAY": ("there is no DECnet", "remove it"),
    "FAX_RELAY": ("there is no pseudo-domain FAX", "write a route for a domain of its own"),
    "UUCP_RELAY": ("there is no UUCP", "write a route for each domain that was reached by it"),
}

FEATURES_EXACT: dict[str, str] = {
    "use_cw_file": "local-host-names is read",
    "nouucp": "addresses with ! are never a route here",
    "accept_unresolvable_domains": "the domain of a sender is not looked up here",
    "no_default_msa": "only the listeners that are named",
    "lookupdotdomain": "keys with a dot in front are asked",
    "delay_checks": "with Spam: lines in the access table the client and sender are judged at RCPT",
    "conncontrol": "ClientConn: of the access table",
    "ratecontrol": "ClientRate: of the access table",
    "blacklist_recipients": "To: of the access table is asked for recipients",
    "blocklist_recipients": "To: of the access table is asked for recipients",
    "preserve_local_plus_detail": "the local part is passed on as it is",
    "virtuser_entire_domain": "domains of the virtusertable are taken with what is below them",
    "nocanonify": "names are never looked up to be replaced",
    "notsticky": "it is the default of sendmail",
    "compat_check": "the table is not read; see its own line",
    "sts": "policies by MTA-STS are fetched and kept by the gateway itself",
    "nopercenthack": "addresses with % are never a route here",
}
FEATURES_EXACT.pop("compat_check")

FEATURES_UNUSED: dict[str, str] = {
    "use_ct_file": "there are no trusted users: who submits mail is known by its uid or its login",
    "smrsh": _LOCAL,
    "local_procmail": _LOCAL,
    "local_lmtp": _LOCAL,
    "local_no_masquerade": _LOCAL,
    "preserve_luser_host": _LOCAL,
    "redirect": "a moved user is a line error:5.1.6:551 in the virtusertable",
    "queuegroup": "there is one queue, with back-off for each next hop",
    "tls_session_features": "TLS is set in [tls]",
    "tls_failures": "TLS is set in [tls]",
    "vnet": "there are no UUCP networks",
    "msp": _CLIENT,
    "badmx": "MX hosts of senders are not looked up",
    "use_client_ptr": "names of clients decide nothing here",
    "check_other": "unknown commands are answered and counted",
    "always_add_domain": "an address without a domain is refused here; submission completes it",
    "accept_unqualified_senders": "the reverse-path is not judged for its domain here",
    "stickyhost": _LOCAL,
    "cert_altnames": "TLS is set in [tls]",
    "check_cert_altnames": "TLS is set in [tls]",
}

FEATURES_NEAR: dict[str, tuple[str, str]] = {
    "block_bad_helo": ("a HELO name decides nothing here", ""),
    "mtamark": ("not asked", ""),
    "generics_entire_domain": ("the rewrite rule of the genericstable holds below its domains too", ""),
}

_RELAY = 'give your own machines the right by their address, [relay] networks = ["192.0.2.0/24"]'
FEATURES_NO: dict[str, tuple[str, str]] = {
    "promiscuous_relay": ("it relays for the whole world", _RELAY),
    "relay_entire_domain": ("it relays for whoever has a name in the domain by DNS", _RELAY),
    "relay_mail_from": ("it relays for whoever writes a sender address", _RELAY),
    "relay_local_from": ("it relays for whoever writes a sender address of ours", _RELAY),
    "relay_based_on_MX": (
        "it relays for whoever points an MX record here",
        "list the domains in [domains], with backup_mx = true",
    ),
    "loose_relay_check": ("it relays addresses with %", "nothing is needed: such addresses are refused from strangers"),
    "bestmx_is_local": ("it takes mail for whoever points an MX record here", "list the domains in [domains]"),
    "dnsbl": ("lists in DNS are not asked by this version", "ask them in a scanner such as rspamd"),
    "enhdnsbl": ("lists in DNS are not asked by this version", "ask them in a scanner such as rspamd"),
    "rhsbl": ("lists in DNS are not asked by this version", "ask them in a scanner such as rspamd"),
    "rbl": ("lists in DNS are not asked by this version", "ask them in a scanner such as rspamd"),
    "require_rdns": ("names of clients are not looked up", "judge them in a scanner such as rspamd"),
    "ldap_routing": (
        "LDAP is not imported",
        'write [sources.NAME] with type = "ldap", and routes = ["ldap:NAME"] or virtual = ["ldap:NAME"]',
    ),
    "bcc": ("no copies are made", "let the server behind the gateway make them"),
    "prefixmod": ("local parts are not passed on with a prefix", "write a [[rewrite.rules]] with a table"),
    "drac": ("a login for POP gives no right to relay", "let the clients authenticate at submission"),
    "uucpdomain": ("there is no UUCP", "write a route for each domain that was reached by it"),
    "bitdomain": ("there is no BITNET", "remove it"),
    "domainmap": ("it is not read", "write a domaintable"),
    "compat_check": ("pairs of sender and recipient are not judged", "write [[relay.rules]] for what must be limited"),
}

# Calls that stand by themselves.
CALLS_UNUSED: dict[str, str] = {
    "VERSIONID": "a comment",
    "OSTYPE": "paths and mailers of an operating system",
    "DOMAIN": "settings of the distribution, for sendmail itself",
    "SITE": "UUCP",
    "SITECONFIG": "UUCP",
    "MAILER_DEFINITIONS": "a section of sendmail.cf",
    "changequote": "a matter of m4",
    "changecom": "a matter of m4",
    "undivert": "a matter of m4",
    "divert": "a matter of m4",
    "LOCAL_USER": _LOCAL,
    "LOCAL_USER_FILE": _LOCAL,
    "LOCAL_UUCP": "UUCP",
    "CANONIFY_DOMAIN": "names are never looked up to be replaced",
    "CANONIFY_DOMAIN_FILE": "names are never looked up to be replaced",
    "QUEUE_GROUP": "there is one queue, with back-off for each next hop",
    "MODIFY_MAILER_FLAGS": "there are no mailers with flags",
    "builtin": "a matter of m4",
}
RAW_SECTIONS = frozenset(
    _rows(
        "LOCAL_CONFIG LOCAL_RULESETS LOCAL_RULE_0 LOCAL_RULE_1 LOCAL_RULE_2 LOCAL_RULE_3 LOCAL_NET_CONFIG LOCAL_SRV_FEATURES "
        "LOCAL_TRY_TLS LOCAL_TLS_RCPT LOCAL_TLS_CLIENT LOCAL_TLS_SERVER LOCAL_CLT_FEATURES LOCAL_DNSBL",
        "",
    )
)
MAILERS: dict[str, str] = {
    "smtp": "",
    "local": _LOCAL,
    "procmail": _LOCAL,
    "cyrus": _LOCAL,
    "cyrusv2": _LOCAL,
    "uucp": "there is no UUCP",
    "usenet": "there is no Usenet",
    "fax": "there is no fax",
    "pop": "there is no POP",
    "phquery": "there is no ph",
    "qpage": "there is no pager",
    "mail11": "there is no DECnet",
}

# What to write in place of a table that sendmail keeps in LDAP, by feature.
LDAP_TABLE = 'write [sources.NAME] with type = "ldap", its servers, base and filter, and name it as a table'
LDAP_TABLES = {
    "access_db": (
        'write access = ["ldap:access"] and [sources.access] with type = "ldap", its servers and base, '
        'filter = "(&(objectClass=sendmailMTAMapObject)(sendmailMTAMapName=access)(sendmailMTAKey={key}))", '
        'attribute = "sendmailMTAMapValue"; its RELAY gives no right, so name networks in relay.networks, and domains in domains'
    ),
}
