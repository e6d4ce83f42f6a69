package authzen

// Parse lets the tests fuzz the decoder without a server.
var Parse = parse
