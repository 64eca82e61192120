"""The live page: runs as they train, side by side.

`python -m harness.live` serves page/ on this machine alone. server.py says who may ask, answers.py
what is answered; watch.py and curves.py read run folders; trainings.py starts and stops trainings.
"""
