package main

import (
	"context"
	"strings"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// nameServers is every client's first option, --namesrv.
func nameServers(o *options) (primitive.NsResolver, error) {
	namesrv, err := o.required("namesrv")
	if err != nil {
		return nil, err
	}
	return primitive.NewPassthroughResolver(strings.Split(namesrv, ";")), nil
}

func producerOptions(o *options) (topic string, opts []producer.Option, err error) {
	resolver, err := nameServers(o)
	if err != nil {
		return "", nil, err
	}
	if topic, err = o.required("topic"); err != nil {
		return "", nil, err
	}
	return topic, []producer.Option{
		producer.WithNsResolver(resolver),
		producer.WithGroupName(o.text("group", "driver-producer")),
		producer.WithInstanceName(o.instance()),
		producer.WithVIPChannel(false),
		producer.WithRetry(int(o.number("retries", 0))),
	}, nil
}

func consumerOptions(o *options) (topic string, opts []consumer.Option, err error) {
	resolver, err := nameServers(o)
	if err != nil {
		return "", nil, err
	}
	if topic, err = o.required("topic"); err != nil {
		return "", nil, err
	}
	group, err := o.required("group")
	if err != nil {
		return "", nil, err
	}
	return topic, []consumer.Option{
		consumer.WithNsResolver(resolver),
		consumer.WithGroupName(group),
		consumer.WithInstance(o.instance()),
		consumer.WithVIPChannel(false),
	}, nil
}

// traceConfig has traces sent to the cluster that the messages go to.
func traceConfig(o *options) *primitive.TraceConfig {
	return &primitive.TraceConfig{NamesrvAddrs: strings.Split(o.text("namesrv", ""), ";")}
}

// announce makes the brokers of the topic know the started producer with these options. Left alone, it tells them a
// second after its start and then every 30 seconds, and only those that it already has a route to; until then they
// have nobody to give a check-back or a reply to.
func announce(topic string, opts []producer.Option) error {
	// Producers of one instance share routes and heartbeats, and only a plain one can do what follows.
	opts = append(append([]producer.Option(nil), opts...),
		producer.WithGroupName("driver-announcer"), producer.WithQueueSelector(noQueue{}))
	announcer, err := rocketmq.NewProducer(opts...)
	if err != nil {
		return err
	}
	if err := announcer.Start(); err != nil {
		return err
	}
	// A request to a topic fetches its route, and one to a topic without a route sends heartbeats. Both fail then, for
	// want of a queue, and nothing is sent.
	for _, asked := range []string{topic, "driver-no-such-topic"} {
		_, _ = announcer.Request(context.Background(), 0, primitive.NewMessage(asked, nil))
	}
	return announcer.Shutdown()
}

// startKnown starts a producer that was made with these options, makes it known, and says so.
func startKnown(client interface{ Start() error }, topic string, opts []producer.Option) error {
	if err := client.Start(); err != nil {
		return err
	}
	if err := announce(topic, opts); err != nil {
		return err
	}
	printLine("READY")
	return nil
}

type noQueue struct{}

func (noQueue) Select(*primitive.Message, []*primitive.MessageQueue, string) *primitive.MessageQueue {
	return nil
}

// settle gives the client time for what it does without telling when it is done:
//   - It does not mark one-way requests as such, so they are answered. Closing the connection while answers come in resets
//     it, and what is still under way is lost (with the Java broker as well).
//   - It tells the broker that a reply has arrived after it has handed it out; before, the replier's send has not succeeded.
//   - It sends traces in the background.
func settle() { time.Sleep(time.Second) }
