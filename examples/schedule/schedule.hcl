# A backup at half past two on every working day. Not yet executed.
app "backup" {
  schedule = "30 2 * * MON-FRI"
  run {
    command = ["/usr/local/bin/backup", "--to", "s3://backups/mesh"]
  }
}
