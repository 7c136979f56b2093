"""The pages of data/history: an overview and a page a run, rewritten whenever a run's record is."""
