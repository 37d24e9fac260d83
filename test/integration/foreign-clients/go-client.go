// go-qemu's SocketMonitor behind the line protocol of foreign-client.ts.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
)

type object map[string]interface{}

func say(answer object) {
	text, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func connect(path string) *qmp.SocketMonitor {
	monitor, err := qmp.NewSocketMonitor("unix", path, 10*time.Second)
	if err == nil {
		err = monitor.Connect()
	}
	if err != nil {
		say(object{"failure": err.Error()})
		os.Exit(1)
	}
	return monitor
}

func execute(monitor qmp.Monitor, name string, arguments interface{}) object {
	command, err := json.Marshal(qmp.Command{Execute: name, Args: arguments})
	if err != nil {
		panic(err)
	}
	reply, err := monitor.Run(command)
	if err != nil {
		// Run tells an error of the server by its desc alone, and its own errors in the same way.
		return object{"error": object{"desc": err.Error()}}
	}
	var answer object
	if err := json.Unmarshal(reply, &answer); err != nil {
		return object{"failure": err.Error()}
	}
	return answer
}

func nextEvent(events <-chan qmp.Event, name string) object {
	for event := range events {
		if event.Event == name {
			return object{"event": object{"event": event.Event, "data": event.Data, "timestamp": object{
				"seconds": event.Timestamp.Seconds, "microseconds": event.Timestamp.Microseconds}}}
		}
	}
	return object{"failure": "the events ended"}
}

// keep takes events as they come, so that the monitor never waits for somebody who asks for them.
func keep(events <-chan qmp.Event) <-chan qmp.Event {
	kept := make(chan qmp.Event, 10000)
	go func() {
		defer close(kept)
		for event := range events {
			kept <- event
		}
	}()
	return kept
}

func disconnect(monitors ...*qmp.SocketMonitor) {
	for _, monitor := range monitors {
		if err := monitor.Disconnect(); err != nil {
			say(object{"failure": err.Error()})
			return
		}
	}
	say(object{"disconnected": true})
}

func main() {
	path := os.Args[len(os.Args)-1]
	// One for commands, one for events: Run gives a reply that lies in the buffer which the next event is read into.
	commands, watcher := connect(path), connect(path)
	if silenced := execute(commands, "events-subscribe", object{"events": []string{}}); silenced["return"] == nil {
		say(silenced)
		os.Exit(1)
	}
	events, err := watcher.Events(context.Background())
	if err != nil {
		panic(err)
	}
	kept := keep(events)
	say(object{"version": commands.Version})

	requests := bufio.NewReader(os.Stdin)
	for {
		line, err := requests.ReadBytes('\n')
		if err != nil {
			break
		}
		var request struct {
			Execute   string      `json:"execute"`
			Arguments interface{} `json:"arguments"`
			Await     string      `json:"await"`
		}
		if err := json.Unmarshal(line, &request); err != nil {
			panic(err)
		}
		if request.Await != "" {
			say(nextEvent(kept, request.Await))
		} else {
			say(execute(commands, request.Execute, request.Arguments))
		}
	}
	disconnect(commands, watcher)
}
