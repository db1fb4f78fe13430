#!/bin/sh
# embed.sh FILE: its text as a C string.
exec sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$/\\n"/' "$1"
