package fork

import "debug/elf"

func hostMachine() elf.Machine { return elf.EM_AARCH64 }
