package main

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// push reports every delivery, and every change of its own share of the queues. `afterwards` gets each message that was
// reported.
func push(o *options, afterwards func(*primitive.MessageExt)) error {
	topic, opts, err := consumerOptions(o)
	if err != nil {
		return err
	}
	switch from := o.text("from", "last"); from {
	case "first":
		opts = append(opts, consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	case "last":
		opts = append(opts, consumer.WithConsumeFromWhere(consumer.ConsumeFromLastOffset))
	case "timestamp":
		at := time.UnixMilli(o.number("timestamp", time.Now().UnixMilli()))
		opts = append(opts, consumer.WithConsumeFromWhere(consumer.ConsumeFromTimestamp),
			consumer.WithConsumeTimestamp(at.Format("20060102150405")))
	default:
		return wrongOptions("unknown --from " + from)
	}
	if o.has("broadcast") {
		opts = append(opts, consumer.WithConsumerModel(consumer.BroadCasting))
	}
	orderly, failFirst := o.has("orderly"), int32(o.number("fail-first", 0))
	opts = append(opts,
		consumer.WithConsumerOrder(orderly),
		consumer.WithConsumeGoroutineNums(int(o.number("threads", 8))),
		consumer.WithMaxReconsumeTimes(int32(o.number("max-reconsume", -1))),
		consumer.WithStrategy((&assignment{topic: topic}).allocate))
	if o.has("trace") {
		opts = append(opts, consumer.WithTrace(traceConfig(o)))
	}
	client, err := rocketmq.NewPushConsumer(opts...)
	if err != nil {
		return err
	}

	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: o.text("tags", "*")}
	if o.has("sql") {
		selector = consumer.MessageSelector{Type: consumer.SQL92, Expression: o.text("sql", "")}
	}
	var received atomic64
	err = client.Subscribe(topic, selector, func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		broker := "-"
		if about, ok := primitive.GetConsumerCtx(ctx); ok && about.MQ != nil {
			broker = about.MQ.BrokerName
		}
		if about, ok := primitive.GetConcurrentlyCtx(ctx); ok {
			about.DelayLevelWhenNextConsume = int(o.number("delay-level", 0))
		}
		consumed := true
		for _, message := range messages {
			received.increment()
			printReceived(message, broker, o.given["show"])
			afterwards(message)
			consumed = consumed && message.ReconsumeTimes >= failFirst
		}
		switch {
		case consumed:
			return consumer.ConsumeSuccess, nil
		case orderly:
			return consumer.SuspendCurrentQueueAMoment, nil
		default:
			return consumer.ConsumeRetryLater, nil
		}
	})
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	printLine("READY")
	<-stdinClosed()
	if o.has("trace") {
		settle()
	}
	err = client.Shutdown()
	printLine("DONE", received.load())
	return err
}

// assignment is the client's default strategy with a look at what it answers: the client shows its share nowhere else.
// It is not asked when broadcasting.
type assignment struct {
	topic    string
	mutex    sync.Mutex
	reported string
}

func (a *assignment) allocate(group, self string, all []*primitive.MessageQueue, members []string) []*primitive.MessageQueue {
	share := consumer.AllocateByAveragely(group, self, all, members)
	if len(all) == 0 || all[0].Topic != a.topic {
		return share
	}
	sorted := append([]*primitive.MessageQueue(nil), share...)
	sortQueues(sorted)
	names := make([]string, len(sorted))
	for at, queue := range sorted {
		names[at] = fmt.Sprintf("%s:%d", queue.BrokerName, queue.QueueId)
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if now := strings.Join(names, ","); now != a.reported {
		a.reported = now
		printLine("ASSIGNED", now)
	}
	return share
}

func sortQueues(queues []*primitive.MessageQueue) {
	sort.Slice(queues, func(a, b int) bool {
		if queues[a].BrokerName != queues[b].BrokerName {
			return queues[a].BrokerName < queues[b].BrokerName
		}
		return queues[a].QueueId < queues[b].QueueId
	})
}

// publishQueues asks the name server, through the client's admin part.
func publishQueues(o *options) ([]*primitive.MessageQueue, error) {
	resolver, err := nameServers(o)
	if err != nil {
		return nil, err
	}
	topic, err := o.required("topic")
	if err != nil {
		return nil, err
	}
	client, err := admin.NewAdmin(admin.WithResolver(resolver))
	if err != nil {
		return nil, err
	}
	queues, err := client.FetchPublishMessageQueues(context.Background(), topic)
	if err != nil {
		return nil, err
	}
	sortQueues(queues)
	return queues, client.Close()
}

func route(o *options) error {
	queues, err := publishQueues(o)
	if err != nil {
		return err
	}
	for _, queue := range queues {
		printLine("QUEUE", queue.BrokerName, queue.QueueId)
	}
	printLine("DONE", len(queues))
	return nil
}

// pullClient is a started pull consumer together with the queues of its topic.
func pullClient(o *options) (rocketmq.PullConsumer, []*primitive.MessageQueue, error) {
	queues, err := publishQueues(o)
	if err != nil {
		return nil, nil, err
	}
	topic, opts, err := consumerOptions(o)
	if err != nil {
		return nil, nil, err
	}
	client, err := rocketmq.NewPullConsumer(opts...)
	if err != nil {
		return nil, nil, err
	}
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: o.text("tags", "*")}
	if err := client.Subscribe(topic, selector); err != nil {
		return nil, nil, err
	}
	return client, queues, client.Start()
}

// pull reads every queue of the topic once, from an offset up to its end.
func pull(o *options) error {
	client, queues, err := pullClient(o)
	if err != nil {
		return err
	}
	received := 0
	for _, queue := range queues {
		broker := queue.BrokerName
		for next := o.number("from-offset", 0); ; {
			result, err := client.PullFrom(context.Background(), queue, next, int(o.number("batch-size", 32)))
			if err != nil {
				return err
			}
			if result.Status == primitive.PullFound {
				for _, message := range result.GetMessageExts() {
					printReceived(message, broker, o.given["show"])
					received++
				}
			}
			if result.NextBeginOffset <= next || result.NextBeginOffset >= result.MaxOffset {
				break
			}
			next = result.NextBeginOffset
		}
	}
	printLine("DONE", received)
	return client.Shutdown()
}

// offsets takes both ends of a queue from the answer to a pull; the client has no call of its own for them.
func offsets(o *options) error {
	if !o.has("group") {
		o.given["group"] = []string{"driver-offsets"}
	}
	client, queues, err := pullClient(o)
	if err != nil {
		return err
	}
	for _, queue := range queues {
		result, err := client.PullFrom(context.Background(), queue, 0, 1)
		if err != nil {
			return err
		}
		printLine("QUEUE", queue.BrokerName, queue.QueueId, result.MinOffset, result.MaxOffset)
	}
	printLine("DONE", len(queues))
	return client.Shutdown()
}
