package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// padding is what a body is filled up with after its key.
const padding = '.'

var stdout sync.Mutex

// printLine writes one protocol line: words joined by a space, written whole and not buffered.
func printLine(args ...interface{}) {
	line := make([]string, len(args))
	for at, arg := range args {
		if line[at] = fmt.Sprint(arg); line[at] == "" {
			line[at] = "-"
		}
	}
	stdout.Lock()
	defer stdout.Unlock()
	if _, err := io.WriteString(os.Stdout, strings.Join(line, " ")+"\n"); err != nil {
		fmt.Fprintln(os.Stderr, "driver: standard output:", err)
		os.Exit(1)
	}
}

// printReceived reports one delivered message and what is to be shown of it, and says so when its body is not what
// `produce` makes.
func printReceived(m *primitive.MessageExt, broker string, shown []string) {
	key := keyOf(m)
	printLine("RECV", key, broker, m.Queue.QueueId, m.QueueOffset, m.MsgId, m.ReconsumeTimes)
	for _, name := range shown {
		printLine("WITH", key, name, shownValue(m, name))
	}
	ours := bytes.HasPrefix(m.Body, []byte(key)) && strings.Trim(string(m.Body[len(key):]), string(padding)) == ""
	if m.GetProperty("seq") != "" && !ours {
		printLine("BADBODY", key, len(m.Body))
	}
}

func shownValue(m *primitive.MessageExt, name string) string {
	switch name {
	case "born":
		return strconv.FormatInt(m.BornTimestamp, 10)
	case "stored":
		return strconv.FormatInt(m.StoreTimestamp, 10)
	case "size":
		return strconv.Itoa(int(m.StoreSize))
	}
	return word(m.GetProperty(name))
}

func keyOf(m *primitive.MessageExt) string { return word(m.GetKeys()) }

func word(text string) string {
	if joined := strings.Join(strings.Fields(text), ","); joined != "" {
		return joined
	}
	return "-"
}

// reason is a failure as one line.
func reason(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

// stdinClosed is closed when standard input ends, which is how a parent asks a driver to stop.
func stdinClosed() <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "driver: standard input:", err)
		}
	}()
	return closed
}
