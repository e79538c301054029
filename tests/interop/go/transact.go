package main

import (
	"context"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// verdicts are what every local transaction of this process ends with, and what every check-back is answered with.
type verdicts struct {
	outcome, check primitive.LocalTransactionState
}

func (v verdicts) ExecuteLocalTransaction(*primitive.Message) primitive.LocalTransactionState {
	return v.outcome
}

func (v verdicts) CheckLocalTransaction(m *primitive.MessageExt) primitive.LocalTransactionState {
	printLine("CHECK", keyOf(m), m.TransactionId)
	return v.check
}

// transact sends numbered transactional messages and answers the broker's check-backs until standard input closes.
// With `--count 0` it is only a member of the producer group that can be asked.
func transact(o *options) error {
	topic, opts, err := producerOptions(o)
	if err != nil {
		return err
	}
	if _, err := o.required("group"); err != nil {
		return err
	}
	var v verdicts
	if v.outcome, err = transactionState(o.text("outcome", "commit")); err != nil {
		return err
	}
	if v.check, err = transactionState(o.text("check", "unknown")); err != nil {
		return err
	}
	stop := stdinClosed()

	client, err := rocketmq.NewTransactionProducer(v, opts...)
	if err != nil {
		return err
	}
	if err := startKnown(client, topic, opts); err != nil {
		return err
	}

	var sent account
	send := func(i int64) {
		message := newMessage(o, topic, i)
		message.WithProperty(primitive.PropertyCheckImmunityTimeInSeconds, o.text("immunity-s", ""))
		ctx, cancel := context.WithTimeout(context.Background(), o.millis("timeout-ms", 3000))
		defer cancel()
		result, err := client.SendMessageInTransaction(ctx, message)
		if err != nil {
			sent.answered(message, nil, err)
			return
		}
		sent.answered(message, result.SendResult, nil)
	}
	start := o.number("start", 0)
	for i, end := start, start+o.number("count", 1); i < end && !isClosed(stop); i++ {
		send(i)
		select {
		case <-stop:
		case <-time.After(o.millis("pace-ms", 0)):
		}
	}
	<-stop
	settle()
	err = client.Shutdown()
	printLine("DONE", sent.acked.load(), sent.failed.load())
	return err
}

func transactionState(word string) (primitive.LocalTransactionState, error) {
	switch word {
	case "commit":
		return primitive.CommitMessageState, nil
	case "rollback":
		return primitive.RollbackMessageState, nil
	case "unknown":
		return primitive.UnknowState, nil
	}
	return primitive.UnknowState, wrongOptions("unknown outcome " + word)
}
