// Package mail has the words of the mails and hands them to a mail server. It decides neither who gets one nor when; that
// is the caller's, through a job. Text that a mail shows comes from us or is escaped: nobody can put words or headers into
// a mail that we send to someone else.
package mail

import "context"

// Message is a mail to one address, in both forms; Text alone says everything.
type Message struct {
	To      string
	Subject string
	Text    string
	HTML    string
}

// Sender hands a message over for delivery. An answer of fault.Invalid (mail_refused) is final; any other failure may
// pass, and the caller tries again.
type Sender interface {
	Send(ctx context.Context, m Message) error
}
