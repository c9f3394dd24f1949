import torch

from engram.backbone.contract import Strategy

CALLS = []


class First(Strategy):
    recordable = True
    reach = "met"

    def __init__(self, options, setting, model):
        self.options, self.setting = options, setting
        self.images, self.labels, self.tasks = torch.zeros(0), torch.zeros(0, dtype=torch.long), torch.zeros(0).long()

    def before_task(self, learner, task):
        CALLS.append(("before", task.index))

    def before_forward(self, learner, batch):
        if len(self.labels):
            rows = torch.arange(self.options.rows) % len(self.labels)
            seen = learner.augmented(self.images[rows], "first")
            learner.replay(batch, seen, self.labels[rows], self.tasks[rows])

    def after_backward(self, learner, batch):
        CALLS.append(("after_backward", len(batch.labels) - batch.own))

    def after_task(self, learner, task):
        share = self.setting.buffer // self.setting.tasks
        images, labels, _ = next(iter(learner.data.batches(torch.arange(share), share, "cpu")))
        self.images = torch.cat((self.images.to(images.dtype), images)) if len(self.images) else images
        self.labels = torch.cat((self.labels, labels))
        self.tasks = torch.cat((self.tasks, torch.full_like(labels, task.index)))

    def stored(self):
        return {"images": self.images, "labels": self.labels, "tasks": self.tasks}

    def samples(self):
        return len(self.labels)

    def state_dict(self):
        return self.stored()

    def load_state_dict(self, saved):
        self.images, self.labels, self.tasks = (saved[name] for name in ("images", "labels", "tasks"))
