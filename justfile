# What a developer types. `just` lists it.

[private]
default:
    @just --list

# Everything CI checks.
check: format lint types floors test generated

# Put the code in shape.
fmt:
    ruff check --fix --select I .
    ruff format .

# Is the code in shape?
format:
    ruff format --check .

# Rules about code, and about Trio code.
lint:
    ruff check .
    git ls-files -z --cached --others --exclude-standard '*.py' ':!src/impervious/pb' | xargs -0 -n 40 -P 2 flake8-async

# mypy, strict.
types:
    mypy

# Imports go down only: the floors of docs/design.md.
floors:
    lint-imports

# Run the tests; arguments go to pytest.
test *args:
    python -m pytest {{ args }}

# Generate src/impervious/pb from proto/.
proto:
    python scripts/generate_pb.py

# Is the generated code that of proto/?
generated:
    python scripts/generate_pb.py --check

# Put the tables of all settings into docs/config.md.
docs:
    python scripts/config_reference.py

# A simulated network and two daemons that talk.
demo *args:
    python -m impervious demo {{ args }}

# Measure side by side with what one would use instead.
bench *args:
    python -m benchmarks {{ args }}
