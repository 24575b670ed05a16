"""Diagnosis of trained networks: findings, measured advice, the page and the live monitor."""
