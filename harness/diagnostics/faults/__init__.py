"""What a bad day does to a training, tried again and again: kills, full disks, flipped bytes, and
nonsense where a file is read."""
