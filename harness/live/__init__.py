"""The live page: runs as they train, side by side.

`python -m harness.live` serves page/ on this machine alone. server.py authenticates requests,
answers.py answers them; watch.py and curves.py read run folders; trainings.py starts and stops
trainings.
"""
