# For TestRuntimeAppArmor, the script apparmor, and the validation suite, which asks for acme_secure_profile.
profile glassbox-test flags=(attach_disconnected,mediate_deleted) {
  capability,
  network,
  file,
  umount,
  signal,
  ptrace,
  deny /etc/hidden rwklx,
}

profile glassbox-test-other flags=(attach_disconnected,mediate_deleted) {
  file,
}

profile acme_secure_profile flags=(attach_disconnected,mediate_deleted) {
  capability,
  network,
  file,
  umount,
  signal,
  ptrace,
}
