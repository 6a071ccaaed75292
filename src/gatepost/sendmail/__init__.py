"""The command `gatepost-sendmail`: mail of programs on this host, submitted over a Unix socket."""
