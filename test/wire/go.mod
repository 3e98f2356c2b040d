module glassbox/test/wire

go 1.26
