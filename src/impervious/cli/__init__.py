"""The command line: argv to a verb, what it says to people, and its exit code.

`main` finds the verb, `registry` lists them all, and each is one module in `verbs` that is imported when it is asked
for. `files` is the only place that opens the configuration and the credentials it names.
"""
