package feedtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheFakeKeepsTheContract(t *testing.T) {
	t.Parallel()
	feedtest.Run(t, func(t *testing.T) feedtest.Sender { return feedtest.NewFake(t) })
}
