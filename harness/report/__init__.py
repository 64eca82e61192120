"""What a person looks at: runs read, ranked, tested in pairs, and shown as text, figures and pages.

records ← statistics ← text ← drawing ← html, each in a package that knows only those before it.
"""
