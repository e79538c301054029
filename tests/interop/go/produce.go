package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// produceRun sends numbered messages and accounts for each of them. A failed send is reported and the next message
// follows, so a broker may be killed and restarted underneath.
type produceRun struct {
	account
	o       *options
	topic   string
	client  rocketmq.Producer
	timeout time.Duration
}

// account reports what became of each message, and counts.
type account struct {
	acked  atomic64
	failed atomic64
}

// atomic64 is a counter that old toolchains have too.
type atomic64 struct{ n int64 }

func (a *atomic64) increment()  { atomic.AddInt64(&a.n, 1) }
func (a *atomic64) load() int64 { return atomic.LoadInt64(&a.n) }

func produce(o *options) error {
	topic, opts, err := producerOptions(o)
	if err != nil {
		return err
	}
	if selector := queueSelector(o); selector != nil {
		opts = append(opts, producer.WithQueueSelector(selector))
	}
	mode := o.text("mode", "sync")
	if o.has("trace") {
		// With traces, version 2.1.2 fails every other send for want of a context that only this kind gets.
		if mode != "sync" && mode != "batch" {
			return errUnsupported
		}
		opts = append(opts, producer.WithTrace(traceConfig(o)))
	}
	client, err := rocketmq.NewProducer(opts...)
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	p := &produceRun{o: o, topic: topic, client: client, timeout: o.millis("timeout-ms", 3000)}
	if err := p.run(); err != nil {
		return err
	}
	if mode == "oneway" || o.has("trace") {
		settle()
	}
	return client.Shutdown()
}

func (p *produceRun) run() error {
	o := p.o
	mode := o.text("mode", "sync")
	start := o.number("start", 0)
	count, stop := o.number("count", 1), (<-chan struct{})(nil)
	if o.has("until-stdin-closes") {
		count, stop = o.number("count", math.MaxInt64-start), stdinClosed()
	}
	step := int64(1)
	if mode == "batch" && o.number("batch-size", 10) > 1 {
		step = o.number("batch-size", 10)
	}
	inflight := o.number("inflight", 32)
	if inflight < 1 {
		inflight = 1
	}
	room := make(chan struct{}, inflight)
	failPause, pace := o.millis("fail-pause-ms", 20), o.millis("pace-ms", 0)

	printLine("READY")
	failuresSeen := int64(0)
	end := start + count
	for i := start; i < end && !isClosed(stop); i += step {
		if now := p.failed.load(); now > failuresSeen {
			failuresSeen = now
			time.Sleep(failPause)
		}
		switch mode {
		case "sync":
			p.sync(i)
		case "async":
			room <- struct{}{}
			p.async(i, room)
		case "oneway":
			p.oneway(i)
		case "batch":
			last := i + step
			if last > end {
				last = end
			}
			p.batch(i, last)
		default:
			return wrongOptions("unknown mode " + mode)
		}
		time.Sleep(pace)
	}
	// Every outstanding callback gives its place back, at the latest when its request times out.
	for n := int64(0); n < inflight; n++ {
		room <- struct{}{}
	}
	printLine("DONE", p.acked.load(), p.failed.load())
	return nil
}

func isClosed(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

func (p *produceRun) sync(i int64) {
	message := newMessage(p.o, p.topic, i)
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	result, err := p.client.SendSync(ctx, message)
	p.answered(message, result, err)
}

func (p *produceRun) async(i int64, room <-chan struct{}) {
	message := newMessage(p.o, p.topic, i)
	// After a failure the client calls back and then goes on to decode a reply that is not there; what it throws then
	// ends in the panic handler that main sets.
	var once sync.Once
	answer := func(result *primitive.SendResult, err error) {
		once.Do(func() {
			p.answered(message, result, err)
			<-room
		})
	}
	err := p.client.SendAsync(context.Background(), func(_ context.Context, result *primitive.SendResult, err error) {
		answer(result, err)
	}, message)
	if err != nil {
		answer(nil, err)
	}
}

func (p *produceRun) oneway(i int64) {
	message := newMessage(p.o, p.topic, i)
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	if err := p.client.SendOneWay(ctx, message); err != nil {
		p.answered(message, nil, err)
		return
	}
	p.acked.increment()
	printLine("SENT", message.GetKeys())
}

func (p *produceRun) batch(from, to int64) {
	var messages []*primitive.Message
	for i := from; i < to; i++ {
		messages = append(messages, newMessage(p.o, p.topic, i))
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	result, err := p.client.SendSync(ctx, messages...)
	if err != nil || len(messages) == 1 {
		for _, message := range messages {
			p.answered(message, result, err)
		}
		return
	}
	offsetIDs := strings.Split(result.OffsetMsgID, ",")
	for at, message := range messages {
		// The client gives the messages of a batch no unique key, so a consumer sees the offset id as the message id.
		id := result.OffsetMsgID
		if len(offsetIDs) == len(messages) {
			id = offsetIDs[at]
		}
		p.acknowledged(message, result, id, id, int64(at))
	}
}

func (a *account) answered(message *primitive.Message, result *primitive.SendResult, err error) {
	if err != nil {
		a.failed.increment()
		printLine("FAIL", message.GetKeys(), reason(err))
		return
	}
	a.acknowledged(message, result, result.MsgID, result.OffsetMsgID, 0)
}

func (a *account) acknowledged(message *primitive.Message, result *primitive.SendResult, id, offsetID string, at int64) {
	a.acked.increment()
	printLine("ACK", message.GetKeys(), statusName(result.Status), id, offsetID,
		result.MessageQueue.BrokerName, result.MessageQueue.QueueId, result.QueueOffset+at)
}

// statusName spells a status as Java does.
func statusName(status primitive.SendStatus) string {
	switch status {
	case primitive.SendOK:
		return "SEND_OK"
	case primitive.SendFlushDiskTimeout:
		return "FLUSH_DISK_TIMEOUT"
	case primitive.SendFlushSlaveTimeout:
		return "FLUSH_SLAVE_TIMEOUT"
	case primitive.SendSlaveNotAvailable:
		return "SLAVE_NOT_AVAILABLE"
	}
	return fmt.Sprintf("STATUS_%d", status)
}

func newMessage(o *options, topic string, i int64) *primitive.Message {
	key := o.text("keys", "k") + strconv.FormatInt(i, 10)
	body := key
	if missing := int(o.number("size", 0)) - len(key); missing > 0 {
		body += strings.Repeat(string(padding), missing)
	}
	message := primitive.NewMessage(topic, []byte(body)).WithKeys([]string{key})
	if tag := o.text("tag", ""); tag != "" {
		message.WithTag(tag)
	}
	message.WithProperty("seq", strconv.FormatInt(i, 10))
	for _, property := range o.given["prop"] {
		if at := strings.Index(property, "="); at > 0 {
			message.WithProperty(property[:at], property[at+1:])
		}
	}
	if level := int(o.number("delay-level", 0)); level > 0 {
		message.WithDelayTimeLevel(level)
	}
	return message
}

// queueSelector: `--queue` names the one queue to send to, `--orderly` spreads by message number; neither means round
// robin, the client's default.
func queueSelector(o *options) producer.QueueSelector {
	if o.has("queue") {
		return oneQueue{id: int(o.number("queue", 0)), broker: o.text("broker", "")}
	}
	if o.has("orderly") {
		return byNumber{}
	}
	return nil
}

type oneQueue struct {
	id     int
	broker string
}

func (s oneQueue) Select(_ *primitive.Message, queues []*primitive.MessageQueue, _ string) *primitive.MessageQueue {
	for _, queue := range queues {
		if queue.QueueId == s.id && (s.broker == "" || s.broker == queue.BrokerName) {
			return queue
		}
	}
	return nil
}

type byNumber struct{}

// A batch arrives here without properties and goes to the first queue.
func (byNumber) Select(m *primitive.Message, queues []*primitive.MessageQueue, _ string) *primitive.MessageQueue {
	i, err := strconv.ParseInt(m.GetProperty("seq"), 10, 64)
	if err != nil {
		i = 0
	}
	return queues[i%int64(len(queues))]
}
