target "default" {
  tags = ["ci/app:bake"]
  args = {V = "bake"}
}
