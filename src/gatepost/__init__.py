"""Gatepost: a hardened SMTP gateway that judges mail, queues it durably, passes it on, and does nothing else."""

__version__ = "0.1.0"
