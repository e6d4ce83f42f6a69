# As those ask who know no path: POST / is for system/main.
package system

main := {"allowed": true, "who": input.user} if input.user == "alice"
