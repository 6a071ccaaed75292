"""What each parameter of Postfix means here: tables, no code. Patterns stand for families; a name in none of them is unknown.

What needs more than a row is a method of the importer (`postfix.py`).
"""

from __future__ import annotations

import re


def _rows(names: str, note: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), note)


# name -> (key, factor)
NUMBERS: dict[str, tuple[str, int]] = {
    "message_size_limit": ("smtp.max_message_bytes", 1),
    "smtpd_recipient_limit": ("smtp.max_recipients", 1),
    "header_size_limit": ("smtp.max_header_bytes", 1),
    "hopcount_limit": ("smtp.max_received_hops", 1),
    "smtpd_client_connection_count_limit": ("smtp.max_connections_per_client", 1),
    "queue_minfree": ("queue.min_free_bytes", 1),
    "default_destination_concurrency_limit": ("delivery.max_connections_per_next_hop", 1),
    "smtp_destination_concurrency_limit": ("delivery.max_connections_per_next_hop", 1),
    "relay_destination_concurrency_limit": ("delivery.max_connections_per_next_hop", 1),
    "default_destination_recipient_limit": ("delivery.max_recipients_per_transaction", 1),
    "smtp_destination_recipient_limit": ("delivery.max_recipients_per_transaction", 1),
    "smtpd_hard_error_limit": ("smtp.max_errors", 1),
    "smtpd_junk_command_limit": ("smtp.max_idle_commands", 1),
    "smtp_mx_address_limit": ("delivery.max_mx_hosts", 1),
}
# name -> (key, unit of a bare number)
TIMES: dict[str, tuple[str, str]] = {
    "maximal_queue_lifetime": ("queue.lifetime_s", "d"),
    "bounce_queue_lifetime": ("queue.dsn_lifetime_s", "d"),
    "delay_warning_time": ("queue.delay_notice_s", "h"),
    "minimal_backoff_time": ("queue.retry_min_s", "s"),
    "maximal_backoff_time": ("queue.retry_max_s", "s"),
    "smtp_connect_timeout": ("delivery.connect_timeout_s", "s"),
    "smtp_helo_timeout": ("delivery.greeting_timeout_s", "s"),
    "smtp_mail_timeout": ("delivery.command_timeout_s", "s"),
    "smtp_rcpt_timeout": ("delivery.command_timeout_s", "s"),
    "smtp_data_xfer_timeout": ("delivery.data_block_timeout_s", "s"),
    "smtp_data_done_timeout": ("delivery.data_end_timeout_s", "s"),
    "smtp_connection_cache_time_limit": ("delivery.keep_idle_s", "s"),
    "smtpd_timeout": ("smtp.command_timeout_s", "s"),
    "address_verify_positive_expire_time": ("call_ahead.found_s", "d"),
    "address_verify_negative_expire_time": ("call_ahead.missing_s", "d"),
    "smtpd_starttls_timeout": ("tls.handshake_timeout_s", "s"),
}

_PROCESS = "it is about files, processes or logs of Postfix"
_LOCAL = "no mail is delivered into mailboxes here"
_OWN = "the gateway has its own way, which needs no setting"
_TLS_OWN = "the gateway has one way for TLS, see [tls]"

UNUSED: dict[str, str] = {
    **_rows(
        "compatibility_level command_directory daemon_directory data_directory queue_directory mail_owner default_privs setgid_group "
        "sendmail_path newaliases_path mailq_path html_directory manpage_directory sample_directory readme_directory "
        "debugger_command debug_peer_level debug_peer_list meta_directory shlib_directory config_directory import_environment "
        "export_environment mail_name mail_version alternate_config_directories authorized_flush_users "
        "authorized_mailq_users authorized_verp_clients multi_instance_wrapper multi_instance_directories multi_instance_enable "
        "multi_instance_group multi_instance_name maillog_file maillog_file_prefixes syslog_facility syslog_name process_name "
        "master_service_disable smtputf8_autodetect_classes postmulti_control_commands postmulti_start_commands process_id "
        "postmulti_stop_commands fork_attempts fork_delay max_idle max_use ipc_idle ipc_timeout ipc_ttl daemon_timeout "
        "helpful_warnings enable_long_queue_ids inet_windowsize in_flow_delay lmdb_map_size berkeley_db_create_buffer_size "
        "berkeley_db_read_buffer_size opts_rw undisclosed_recipients_header openssl_path default_database_type "
        "postlog_service_name postlogd_watchdog_timeout mydomain error_service_name strict_mailbox_ownership "
        "authorized_verp_clients known_tcp_ports",
        _PROCESS,
    ),
    **_rows(
        "biff mailbox_command mailbox_command_maps mailbox_size_limit home_mailbox mail_spool_directory "
        "allow_mail_to_commands allow_mail_to_files forward_path owner_request_special virtual_mailbox_base virtual_mailbox_limit "
        "virtual_minimum_uid virtual_uid_maps virtual_gid_maps virtual_mailbox_lock mailbox_delivery_lock propagate_unmatched_extensions "
        "prepend_delivered_header expand_owner_alias command_expansion_filter command_execution_directory command_time_limit "
        "frozen_delivered_to deliver_lock_attempts deliver_lock_delay stale_lock_time alias_database newaliases mailbox_transport_maps "
        "fallback_transport_maps",
        _LOCAL,
    ),
    **_rows(
        "append_dot_mydomain append_at_myorigin swap_bangpath allow_percent_hack allow_untrusted_routing resolve_dequoted_address "
        "strict_rfc821_envelopes smtpd_helo_required disable_vrfy_command smtpd_delay_reject smtpd_delay_open_until_valid_rcpt "
        "qmgr_message_active_limit qmgr_message_recipient_limit qmgr_message_recipient_minimum line_length_limit "
        "smtp_line_length_limit body_checks_size_limit header_address_token_limit mime_boundary_length_limit mime_nesting_limit "
        "queue_run_delay smtp_per_record_deadline smtp_randomize_addresses smtp_dns_support_level "
        "smtp_quit_timeout smtp_rset_timeout smtp_xforward_timeout smtp_data_init_timeout smtp_skip_5xx_greeting smtp_skip_quit_response "
        "smtp_always_send_ehlo smtp_never_send_ehlo smtp_address_preference smtp_mx_session_limit smtp_cname_overrides_servername "
        "smtp_defer_if_no_mx_address_found smtp_balance_inet_protocols smtp_enforce_tls smtp_use_tls smtpd_use_tls smtpd_enforce_tls "
        "smtpd_soft_error_limit smtpd_error_sleep_time smtpd_peername_lookup smtpd_client_port_logging smtpd_forbid_bare_newline "
        "smtpd_forbid_bare_newline_exclusions smtpd_forbid_unauth_pipelining smtpd_per_record_deadline smtpd_per_request_deadline "
        "smtpd_min_data_rate smtpd_discard_ehlo_keywords smtpd_discard_ehlo_keyword_address_maps smtpd_sasl_tls_security_options "
        "notify_classes 2bounce_notice_recipient bounce_notice_recipient error_notice_recipient delay_notice_recipient "
        "bounce_size_limit bounce_template_file double_bounce_sender empty_address_recipient default_process_limit "
        "initial_destination_concurrency show_user_unknown_table_name smtputf8_enable strict_smtputf8 reject_code "
        "best_mx_transport detect_8bit_encoding_header strict_8bitmime strict_8bitmime_body "
        "strict_7bit_headers strict_mime_encoding_domain disable_mime_input_processing disable_mime_output_conversion "
        "confirm_delay_cleared fast_flush_domains fast_flush_purge_time fast_flush_refresh_time parent_domain_matches_subdomains "
        "address_verify_map verp_delimiter_filter default_verp_delimiters disable_verp_bounces smtpd_log_access_permit_actions "
        "proxy_read_maps proxy_write_maps proxymap_service_name proxywrite_service_name require_home_directory "
        "smtpd_proxy_ehlo smtpd_proxy_options smtpd_proxy_timeout double_bounce_sender unknown_local_recipient_reject_code "
        "ignore_mx_lookup_error ignore_srv_lookup_error tcp_windowsize header_from_format info_log_address_format "
        "respectful_logging enable_idna2003_compatibility enable_original_recipient rewrite_service_name smtpd_history_flush_threshold "
        "local_header_rewrite_clients remote_header_rewrite_domain smtp_send_dummy_mail_auth cleanup_replace_stray_cr_lf "
        "allow_min_user application_event_drain_time connection_cache_protocol_timeout connection_cache_status_update_time "
        "connection_cache_ttl_limit daemon_table_open_error_is_fatal dns_ncache_ttl_fix_enable dnssec_probe enable_threaded_bounces "
        "empty_address_default_transport_maps_lookup_key empty_address_local_login_sender_maps_lookup_key fault_injection_code "
        "empty_address_relayhost_maps_lookup_key forward_expansion_filter internal_mail_filter_classes local_command_shell "
        "mail_release_date maillog_file_compressor maillog_file_rotate_suffix qmgr_clog_warn_time qmgr_daemon_timeout "
        "qmgr_fudge_factor qmgr_ipc_timeout queue_file_attribute_count_limit reset_owner_alias resolve_null_domain "
        "resolve_numeric_domain send_cyrus_sasl_authzid sendmail_fix_line_endings service_name service_throttle_time "
        "smtp_address_verify_target smtp_bind_address_enforce smtp_dns_resolver_options smtp_min_data_rate smtp_per_request_deadline "
        "smtp_quote_rfc821_envelope smtpd_forbid_bare_newline_reject_code stress sun_mailtool_compatibility "
        "destination_concurrency_feedback_debug",
        _OWN,
    ),
}

# Families, for what no row above has: pattern -> (result word, note, advice)
FAMILIES: tuple[tuple[re.Pattern[str], str, str, str], ...] = tuple(
    (re.compile(pattern), result, note, advice)
    for pattern, result, note, advice in (
        (
            r"(default|smtp|relay)_(destination|transport)_rate_delay",
            "refused",
            "deliveries are not slowed down",
            "write delivery.max_connections_per_next_hop",
        ),
        (
            r"relay_clientcerts",
            "refused",
            "the certificates themselves are needed, not only their fingerprints",
            "write [[relay.certificates]] with ca_file and fingerprints",
        ),
        (
            r"authorized_submit_users",
            "refused",
            "who of this host may submit is listed by name",
            'write local.socket and local.users = ["root", "www-data"]',
        ),
        (
            r"luser_relay",
            "refused",
            "what does not exist is refused",
            "write catch_all in [domains], beside the recipients that exist",
        ),
        (
            r"permit_mx_backup_networks",
            "refused",
            "it relays for whoever points an MX record here",
            "list the domains in [domains], with backup_mx = true",
        ),
        (
            r"local_login_sender_maps",
            "refused",
            "users of this host send from their own addresses",
            "write local.senders",
        ),
        (
            r"smtpd_sender_login_maps",
            "refused",
            "users are not imported",
            "give each user of auth.users_file his addresses",
        ),
        (
            r"smtp_tls_fingerprint_cert_match|smtp_starttls_timeout|smtpd_tls_CAfile",
            "approximated",
            "the gateway has one way for TLS, see [tls]",
            "see docs/config.md",
        ),
        (r"lmtp_.*", "unused", "LMTP next hops take the settings of [delivery]", ""),
        (
            r"(local|virtual|pipe|mailbox|maildrop|uucp|error|retry|discard)_(transport_rate_delay|destination_.*|delivery_.*|initial_.*|min.*)",
            "unused",
            _LOCAL,
            "",
        ),
        (
            (
                r".*_(time_limit|delivery_slot_cost|delivery_slot_discount|delivery_slot_loan|minimum_delivery_slots|recipient_refill_.*|"
                r"extra_recipient_limit|initial_destination_concurrency|destination_concurrency_.*feedback.*|destination_concurrency_failed_.*|"
                r"recipient_limit|service_name|service|watchdog_timeout|_log_level|loglevel)"
            ),
            "unused",
            _OWN,
            "",
        ),
        (
            r"postscreen_dnsbl_.*|.*rbl.*|dnsblog_.*",
            "refused",
            "lists in DNS are not asked by this version",
            "ask them in a scanner such as rspamd",
        ),
        (
            r"(smtpd|postscreen)_upstream_proxy_protocol",
            "refused",
            "Postfix believes whoever connects; here the load balancers are named by their addresses",
            "write smtp.proxy_from; until then their connections are closed",
        ),
        (
            r"postscreen_.*|psc_.*|tlsproxy_.*",
            "unused",
            "there is no postscreen: greeting_delay_s turns away who talks first",
            "",
        ),
        (
            r"(smtpd|non_smtpd|internal)?_?milter.*|milter_.*",
            "refused",
            "filters are not imported",
            "name them among the scanners",
        ),
        (
            (
                r"tlsmgr_.*|tls_.*|smtpd?_tls_session_.*|smtpd?_tls_(loglevel|log_.*|dh.*|eccert_file|eckey_file|dcert_file|dkey_file|note_.*|"
                r"received_header|wrappermode|scert_verifydepth|ccert_verifydepth|connection_reuse|fingerprint_digest|eecdh_grade|"
                r"always_issue_session_ids|req_ccert|trust_anchor_file|force_insecure_host_tlsa_lookup|servername|block_early_mail_reply|"
                r"dane_.*|verify_cert_match|secure_cert_match|per_site|enforce_peername|ask_ccert|chain_files|key_file|cert_file|CApath|"
                r"protocols|mandatory_.*|ciphers|exclude_ciphers|starttls_timeout)"
            ),
            "approximated",
            _TLS_OWN,
            "see docs/config.md",
        ),
        (
            r"address_verify_.*|unverified_.*",
            "unused",
            "what next hops are asked of recipients has its own way, see [call_ahead]",
            "",
        ),
        (
            r"smtp_sasl_.*|lmtp_sasl_.*|sender_dependent_authentication",
            "refused",
            "passwords for other servers are not copied",
            "give the password to the next hop in the configuration, from a file of its own",
        ),
        (
            r"smtpd_sasl_.*|broken_sasl_auth_clients|cyrus_sasl_.*",
            "approximated",
            "clients authenticate as [auth] says; users are not imported",
            "write them into a file named by auth.users_file, or name Dovecot's socket in auth.dovecot",
        ),
        (
            r"anvil_.*|smtpd_client_.*(rate|count)_limit|smtpd_client_event_limit_exceptions|smtpd_client_auth_rate_limit",
            "approximated",
            "a rate of connections is set for each client in an access table",
            "write ClientRate: lines",
        ),
        (
            (
                r"(unknown|multi_recipient|non_fqdn|invalid|access_map|maps_rbl|plaintext|defer|relay_domains|reject).*_(reject_code|action|code)|"
                r"maps_rbl_.*|access_map_.*|.*_tempfail_action"
            ),
            "unused",
            "the reply codes are fixed",
            "",
        ),
        (
            (
                r"smtpd_(dns_reply_filter|command_filter|policy_.*|noop_commands|forbidden_commands|reject_.*|sender_login_maps|"
                r"authorized_.*|upstream_proxy_.*|null_access_.*|expansion_filter|proxy_filter|rejection_.*|relay_before_.*)"
            ),
            "refused",
            "there is no such filter here",
            "write what it is for as a rule or a scanner",
        ),
        (
            (
                r"smtp_(dns_reply_filter|reply_filter|delivery_status_filter|header_checks|mime_header_checks|nested_header_checks|body_checks|"
                r"generic_maps|pix_.*|discard_ehlo_.*|fallback_relay|sender_dependent_.*|send_xforward.*|tcp_port|helo_name|"
                r"connection_cache_.*|connection_reuse_.*)|default_delivery_status_filter|default_filter_nexthop|fallback_relay|"
                r"fallback_transport|sender_bcc_maps|recipient_bcc_maps|always_bcc|content_filter|receive_override_options|hash_queue_.*|"
                r"sender_dependent_.*|default_transport_maps|(nested_|mime_)?header_checks|body_checks|message_(strip|reject|drop)_.*|"
                r"address_rewriting_.*|(sender_|recipient_)?canonical_(maps|classes)|masquerade_.*|relocated_maps|virtual_alias_.*limit|"
                r"duplicate_filter_limit|always_add_missing_headers|qmqpd_.*|export_.*|lmtp.*|defer_transports|soft_bounce"
            ),
            "refused",
            "it is not imported",
            "see docs/migration.md for what takes its place",
        ),
        (
            (
                r"(non_)?\w*_error_code|smtpd_\w+_limit|smtpd_\w+_timeout|trigger_timeout|transport_retry_time|.*_maps_only|.*_overrides.*|"
                r"backwards_.*|dont_remove|delay_logging_.*|execution_directory_.*|.*_status_file|address_.*|nullmx_.*|.*_directory|.*_path"
            ),
            "unused",
            _OWN,
            "",
        ),
    )
)

_REJECT = "who is permitted nothing may not relay; mail to our own domains is taken from everybody"
_REJECT_ADVICE = "if strangers may not even do that, let listen name an inside address"

# restriction -> (result word, note, advice)
RESTRICTIONS: dict[str, tuple[str, str, str]] = {
    "permit_mynetworks": ("exact", "relay.networks", ""),
    "permit_inet_interfaces": ("approximated", "the host's own addresses are not known", "add them to relay.networks"),
    "reject_unauth_destination": ("exact", "only rights relay", ""),
    "defer_unauth_destination": ("approximated", "what may not relay is refused with 550, not with 4xx", ""),
    "permit_auth_destination": ("exact", "mail to our own domains is taken from anyone", ""),
    "reject_unlisted_recipient": ("exact", "an unknown recipient is refused with 550 5.1.1", ""),
    "reject_unauth_pipelining": ("exact", "whoever talks out of turn is refused", ""),
    "reject_non_fqdn_recipient": ("exact", "an address without a domain is refused", ""),
    "reject_unlisted_sender": ("approximated", "the reverse-path is not looked up among our recipients", ""),
    "permit_sasl_authenticated": (
        "approximated",
        "who has authenticated may send to every domain, from his own addresses only",
        "give a user more addresses in auth.users_file",
    ),
    "permit_tls_clientcerts": (
        "refused",
        "the certificates themselves are needed, not only their fingerprints",
        "write [[relay.certificates]] with ca_file and fingerprints",
    ),
    "permit_tls_all_clientcerts": (
        "refused",
        "any certificate would give the right",
        "write [[relay.rules]] with certificates",
    ),
    "permit_mx_backup": (
        "refused",
        "it relays for whoever points an MX record here",
        "list the domains in [domains], with backup_mx = true",
    ),
    "permit_naked_ip_address": ("refused", "it relays because of a HELO name", "name networks in relay.networks"),
    "check_relay_domains": (
        "refused",
        "it relays for clients with a name in our domains",
        "name networks in relay.networks",
    ),
    "reject_unknown_recipient_domain": ("approximated", "a domain that does not exist is found at delivery", ""),
    "reject_non_fqdn_sender": (
        "approximated",
        "the reverse-path is not judged",
        "judge it in a scanner such as rspamd",
    ),
    "reject_unknown_sender_domain": (
        "approximated",
        "the reverse-path is not judged",
        "judge it in a scanner such as rspamd",
    ),
    "reject_sender_login_mismatch": (
        "approximated",
        "who has authenticated sends from his own addresses only; other addresses of ours are not judged by login",
        "give a user more addresses in auth.users_file",
    ),
    "reject_authenticated_sender_login_mismatch": (
        "exact",
        "who has authenticated sends from his own addresses only",
        "",
    ),
    "reject_known_sender_login_mismatch": (
        "exact",
        "who has authenticated sends from his own addresses only",
        "",
    ),
    "reject_unauthenticated_sender_login_mismatch": (
        "refused",
        "it is not imported",
        "write reverse_paths in [[relay.rules]]",
    ),
    "reject_multi_recipient_bounce": ("approximated", "a bounce may have several recipients", ""),
    "reject_plaintext_session": ("refused", "it is not imported", "write tls.require = true"),
    "permit": ("exact", "what no rule refuses goes on to the next stage", ""),
    "reject": ("approximated", _REJECT, _REJECT_ADVICE),
    "defer": ("approximated", _REJECT, _REJECT_ADVICE),
    "defer_if_permit": ("refused", "it is not imported", "see docs/migration.md"),
    "defer_if_reject": ("refused", "it is not imported", "see docs/migration.md"),
    "reject_unverified_recipient": (
        "exact",
        "call-ahead: the next hop is asked for recipients of domains without a list",
        "",
    ),
    "reject_unverified_sender": ("refused", "senders are not probed", "judge them in a scanner such as rspamd"),
    "sleep": ("approximated", "smtp.greeting_delay_s holds the greeting back", ""),
    "static": ("exact", "as written", ""),
}
RESTRICTION_FAMILIES: tuple[tuple[re.Pattern[str], str, str, str], ...] = tuple(
    (re.compile(pattern), result, note, advice)
    for pattern, result, note, advice in (
        (r"reject_(rbl|rhsbl)_\w+|permit_dnswl_client|permit_rhswl_client", "refused", "lists in DNS are not asked by this version",
         "ask them in a scanner such as rspamd"),
        (r"reject_unknown_(reverse_)?client.*", "refused", "a client is not judged by whether it has a name",
         "judge them in a scanner such as rspamd"),
        (r"reject_.*(helo|hostname).*|permit_naked_.*", "approximated", "a HELO name decides nothing here", ""),
        (r"check_policy_service", "refused", "no policy server is asked", "write what it does as rules, or in a scanner"),
        (r"check_(helo|etrn|sasl|ccert|reverse_client_hostname|client_(ns|mx|a)|sender_(ns|mx|a)|recipient_(ns|mx|a)|helo_(ns|mx|a)).*",
         "refused", "it judges by a name that anyone can choose, or is not imported", "write it in an access table or a scanner"),
    )
)  # fmt: skip
