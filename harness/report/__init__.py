"""Reports of finished runs: read, ranked, tested in pairs, and shown as text, figures and pages.

records ← statistics ← text ← drawing ← html: each package imports only those before it.
"""
