module glassbox

go 1.26
