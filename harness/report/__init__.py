"""What a person looks at: runs read, ranked, tested in pairs, drawn and written as one page."""
