# Runs a server and stops it when its owner, the process that started this guard, ends.
#
# Standard input is the lifeline: a pipe whose other end only the owner holds. It closes when the owner closes it or
# ends, for whatever reason. A line on it replaces SIGNALS.
# Standard output gets the server's process id and is closed; standard error is the log. Exits when the server does.
#
# guard PATIENCE_SECONDS SIGNALS SERVER [ARGUMENT...]
#   PATIENCE_SECONDS  time after each signal before the next one is sent
#   SIGNALS           signals that stop the server, in this order, for example 'INT QUIT'; KILL is the last one

patience_seconds=$1
signals=$2
shift 2

exec 3<&0 </dev/null
"$@" 3<&- >&2 &
server=$!
echo "$server"
exec >&2

{
    while read -r line <&3; do signals=$line; done
    for signal in $signals KILL; do
        kill -s "$signal" "$server" 2>/dev/null || exit 0
        kill -s CONT "$server" 2>/dev/null # it may be paused
        tenths=0
        while [ "$tenths" -lt $((patience_seconds * 10)) ]; do
            kill -s 0 "$server" 2>/dev/null || exit 0
            sleep 0.1 >/dev/null 2>&1
            tenths=$((tenths + 1))
        done
    done
} &
watch=$!
exec 3<&-

# If the guard is signalled to end, it ends the server first. The signal interrupts `wait`, so it is called again.
trap 'kill -s TERM "$server" 2>/dev/null' HUP INT TERM
wait "$server"
while kill -s 0 "$server" 2>/dev/null; do wait "$server"; done
kill -s KILL "$watch" 2>/dev/null
wait "$watch" 2>/dev/null
exit 0
