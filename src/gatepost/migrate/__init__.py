"""From another server's configuration to ours, with a report that leaves nothing out."""
