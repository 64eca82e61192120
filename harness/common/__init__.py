"""What the other packages share: errors, atomic files, rows of numbers, interrupts. Imports nothing
of ours and no torch."""
