#!/bin/sh
# Sends a text with curl and nothing else, and shows the events that follow:
#
#     sh curl.sh http://127.0.0.1:8882 PUBKEY "hello"
set -eu
daemon=$1 pubkey=$2 text=$3

# Is the daemon ready? If not, it says what is missing, and what cures it.
curl --silent --show-error --fail-with-body "$daemon/readyz"
echo

# `text` is sent as it is; `msg` takes any bytes, in base64. Quotes and backslashes must be escaped in JSON.
escaped=$(printf '%s' "$text" | sed 's/\\/\\\\/g; s/"/\\"/g')

# With a key the call can be repeated when its answer got lost: --retry then never pays twice.
# ?wait=true answers when the message has arrived, or with the reason why it has not.
curl --silent --show-error --fail-with-body --retry 5 --retry-connrefused \
    --header "Idempotency-Key: $(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" \
    --data "{\"pubkey\": \"$pubkey\", \"text\": \"$escaped\"}" \
    "$daemon/v1/message/send?wait=true"
echo

# Every event is a line of JSON; since=0 begins with the oldest that is kept. Ctrl-C ends it.
exec curl --silent --show-error --no-buffer "$daemon/v1/subscribe?since=0&encoding=text&v=2"
