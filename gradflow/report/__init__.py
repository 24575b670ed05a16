"""Diagnosis of trained networks: findings, measured advice, the page and the live monitor."""

from gradflow.report.in_memory import diagnose
from gradflow.report.live.monitor import Monitor
from gradflow.report.live.record import read_watch
from gradflow.report.live.watch import watch

__all__ = ["Monitor", "diagnose", "read_watch", "watch"]
