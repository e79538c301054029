package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// options is the command line: `--name value` pairs and bare flags, each of them known by name.
type options struct {
	given map[string][]string
}

// wrongOptions says what about the command line cannot be understood.
type wrongOptions string

func (w wrongOptions) Error() string { return string(w) }

var flags = words("orderly broadcast trace until-stdin-closes")

var values = words(`namesrv topic group instance poll-ms persist-ms log-dir
	mode count start size keys tag queue broker inflight timeout-ms batch-size retries fail-pause-ms pace-ms
	delay-level prop outcome check immunity-s
	from timestamp tags sql fail-first max-reconsume threads from-offset show key unique-key offset-id max`)

func words(list string) map[string]bool {
	set := map[string]bool{}
	for _, word := range strings.Fields(list) {
		set[word] = true
	}
	return set
}

func parseOptions(args []string) (*options, error) {
	o := &options{given: map[string][]string{}}
	for at := 0; at < len(args); at++ {
		name := strings.TrimPrefix(args[at], "--")
		switch {
		case name == args[at] || !flags[name] && !values[name]:
			return nil, wrongOptions("unknown option " + args[at])
		case flags[name]:
			o.given[name] = append(o.given[name], "true")
		case at+1 == len(args):
			return nil, wrongOptions(args[at] + " needs a value")
		default:
			at++
			o.given[name] = append(o.given[name], args[at])
		}
	}
	// Numbers are checked here, so that reading one later cannot fail.
	for _, name := range strings.Fields(`poll-ms persist-ms count start size queue inflight timeout-ms batch-size retries
		fail-pause-ms pace-ms delay-level immunity-s timestamp fail-first max-reconsume threads from-offset max`) {
		if value := o.text(name, "0"); !isNumber(value) {
			return nil, wrongOptions(fmt.Sprintf("--%s %s is not a whole number", name, value))
		}
	}
	return o, nil
}

func isNumber(value string) bool {
	_, err := strconv.ParseInt(value, 10, 64)
	return err == nil
}

func (o *options) has(name string) bool { return len(o.given[name]) > 0 }

func (o *options) text(name, otherwise string) string {
	if all := o.given[name]; len(all) > 0 {
		return all[len(all)-1]
	}
	return otherwise
}

func (o *options) required(name string) (string, error) {
	if !o.has(name) {
		return "", wrongOptions("--" + name + " is missing")
	}
	return o.text(name, ""), nil
}

// number is the last value of the option; parseOptions has checked that it is one.
func (o *options) number(name string, otherwise int64) int64 {
	n, err := strconv.ParseInt(o.text(name, ""), 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}

func (o *options) millis(name string, otherwise int64) time.Duration {
	return time.Duration(o.number(name, otherwise)) * time.Millisecond
}

// instance is unique to this process unless it is given.
func (o *options) instance() string {
	return o.text("instance", fmt.Sprintf("driver-%d-%d", os.Getpid(), time.Now().UnixNano()))
}
