"""The published operations, one module for each service: its rows of the table, and its requests read and answered."""
