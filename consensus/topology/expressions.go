package topology

// compiled holds what is derived from an app's text, made once per stored app.
type compiled struct{}
