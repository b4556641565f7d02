#!/bin/sh
# Adds up the closing lines of every test binary in the files given (or on standard input), and prints one line:
# `N passed, N failed`, with `, N skipped` where a test was ignored. Fails when no test ran, or one failed.
awk '
    /^test result: / {
        for (i = 1; i < NF; i++) {
            if ($(i + 1) ~ /^passed/) passed += $i
            if ($(i + 1) ~ /^failed/) failed += $i
            if ($(i + 1) ~ /^ignored/) skipped += $i
        }
    }
    END {
        printf "%d passed, %d failed", passed, failed
        if (skipped) printf ", %d skipped", skipped
        printf "\n"
        exit (failed > 0 || passed == 0)
    }
' "$@"
