"""Report generation: a model that learns to write reports from real or from synthetic films, judged on real ones.

`cases` opens films with reports; `writers` loads a model, tells its loss and lets it write; `learner` trains it;
`units` does one (arm, percentage, seed) after the other; `scoring` compares what they wrote with the true reports.
"""
