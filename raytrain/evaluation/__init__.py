"""What a model can do, item by item, and whether that is more than another can.

suite.py → items.py         what is asked: a suite's file, and its rows as items
evaluate.py                 the entrance: items are put to an answerer (answering/), kept as they come (work.py)
records.py                  one record an item: prompt, output, score, or why there is none
metrics.py → report.py      from records to figures, and the report that they stand in
results.py                  report and records as an artifact, and how it is read again
baseline.py                 such an artifact frozen, and verified later
decision/decide.py          two or more of them beside each other: like conditions, gates, a verdict
statistics/                 the tests and intervals that all of this rests on
"""
