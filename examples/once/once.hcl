# A migration that runs to completion once a release.
app "migrate" {
  once = true
  run {
    command  = ["./migrate", "up"]
    artifact = "https://example.org/releases/migrate-1.4.0.tar.gz"
    digest   = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
  }
}
