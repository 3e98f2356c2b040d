package fork

const hostMachine = elfAMD64
