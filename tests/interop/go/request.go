package main

import (
	"context"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// request asks over a topic, one question after the other, and reports each answer.
func request(o *options) error {
	if o.has("trace") {
		return errUnsupported
	}
	topic, opts, err := producerOptions(o)
	if err != nil {
		return err
	}
	opts = append(opts, producer.WithQueueSelector(byNumber{}))
	client, err := rocketmq.NewProducer(opts...)
	if err != nil {
		return err
	}
	if err := startKnown(client, topic, opts); err != nil {
		return err
	}
	answered, failed := 0, 0
	start := o.number("start", 0)
	for i, end := start, start+o.number("count", 1); i < end; i++ {
		question := newMessage(o, topic, i)
		answer, err := client.Request(context.Background(), o.millis("timeout-ms", 3000), question)
		if err != nil {
			failed++
			printLine("FAIL", question.GetKeys(), reason(err))
			continue
		}
		answered++
		printLine("REPLY", question.GetKeys(), string(answer.Body))
	}
	printLine("DONE", answered, failed)
	settle()
	return client.Shutdown()
}

// reply consumes and answers each message it receives.
func reply(o *options) error {
	_, opts, err := producerOptions(o)
	if err != nil {
		return err
	}
	opts = append(opts, producer.WithGroupName(o.text("group", "")+"_replies"))
	client, err := rocketmq.NewProducer(opts...)
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	err = push(o, func(question *primitive.MessageExt) {
		if err := answer(client, question); err != nil {
			printLine("FAIL", keyOf(question), reason(err))
			return
		}
		printLine("REPLIED", keyOf(question))
	})
	if err != nil {
		return err
	}
	return client.Shutdown()
}

func answer(client rocketmq.Producer, question *primitive.MessageExt) error {
	body := []byte("re:" + keyOf(question))
	message, err := consumer.CreateReplyMessage(question, body)
	if err != nil {
		return err
	}
	// Version 2.1.2 reads properties out of the body that it is given, and leaves the reply without one.
	message.Body = body
	_, err = client.SendSync(context.Background(), message)
	return err
}
