# A backup at half past two in Berlin on every working day.
app "backup" {
  schedule = "CRON_TZ=Europe/Berlin 30 2 * * MON-FRI"
  run {
    command = ["/usr/local/bin/backup", "--to", "s3://backups/mesh"]
  }
}
