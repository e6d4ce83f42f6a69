package main

import "time"

// now is the clock of the program, in a file of its own so that a test can build the program with one that is set while it runs.
func now() time.Time { return time.Now() }
