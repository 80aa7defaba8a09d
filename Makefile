# Thin: go.py does the work, and does it on Windows too.
PYTHON ?= python3

.PHONY: lab test setup lock
lab test setup lock:
	$(PYTHON) go.py $@
