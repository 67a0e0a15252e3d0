"""The leaderboard: a folder of entries, each a run that was scored under one protocol and can be checked again.

entry.py       what an entry is: its files, its id; read with every field checked, written all at once
forms.py       the form of each field
submit.py      a run folder becomes an entry
verify.py      plays the evaluation of an entry again
merge.py       the entries of several boards in one
rank.py        entries become rows: one for each setting, ranked over its seeds
references.py  published scores (references.json), shown beside the rows and never ranked against them
view.py        what the templates show
chart.py       curves, histograms and intervals as SVG
page.py        the pages, as a folder
serve.py       the same over HTTP, new when the board changed
"""
