package fork

const hostMachine = elfARM64
