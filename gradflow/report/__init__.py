"""Diagnosis of trained networks: findings, measured advice, the page and the live monitor."""

from gradflow.report.monitor import Monitor
from gradflow.report.watch import watch
from gradflow.report.watch_record import read_watch

__all__ = ["Monitor", "read_watch", "watch"]
