const Docker = require('dockerode'); const {PassThrough} = require('stream'); const assert = require('assert');
(async () => {
 const d = new Docker({socketPath: process.env.SOCKET});
 console.log((await d.version()).ApiVersion, (await d.ping()).toString());
 let out = new PassThrough(), got=''; out.on('data', b => got += b);
 let [res, c] = await d.run('box', ['sh','-c','echo hi; exit 2'], out, {Tty:false}); assert.equal(res.StatusCode, 2); console.log(JSON.stringify(got)); await c.remove();
 c = await d.createContainer({Image:'box', Cmd:['cat'], OpenStdin:true, StdinOnce:true, AttachStdin:true, AttachStdout:true, name:'node1', HostConfig:{Privileged:false, CapAdd:null, Binds:[], PortBindings:{}}});
 let s = await c.attach({stream:true, stdin:true, stdout:true, stderr:true, hijack:true}); let o=new PassThrough(); let g=''; o.on('data',b=>g+=b); d.modem.demuxStream(s,o,o);
 await c.start(); s.write('hello\n'); s.end(); let w = await c.wait(); await new Promise(r=>setTimeout(r,100)); assert.equal(g,'hello\n'); assert.equal(w.StatusCode,0); console.log('attach ok'); await c.remove();
 c = await d.createContainer({Image:'box', Cmd:['sleep','100'], Tty:true}); await c.start(); await c.resize({h:20,w:30});
 let e = await c.exec({Cmd:['sh','-c','echo e; exit 9'], AttachStdout:true, AttachStderr:true}); let es = await e.start({}); let eg=''; let eo=new PassThrough(); eo.on('data',b=>eg+=b); d.modem.demuxStream(es,eo,eo); await new Promise(r=>es.on('end',r)); let ei=await e.inspect(); assert.equal(ei.ExitCode,9); assert.equal(eg,'e\n');
 let st = await c.stats({stream:false}); console.log(st.name);
 let ev = await d.getEvents({filters:{type:['container']}}); ev.once('data', b => console.log('event', JSON.parse(b).Action)); await c.kill(); await c.wait(); await new Promise(r=>setTimeout(r,200)); ev.destroy(); await c.remove();
 let ls = await d.listImages(); assert(ls.length>0); let im=d.getImage('box'); await im.inspect(); await im.tag({repo:'nt',tag:'1'}); await d.getImage('nt:1').remove();
 let n = await d.createNetwork({Name:'nn'}); await n.inspect(); await n.remove(); let v = await d.createVolume({Name:'nv'}); await v.inspect(); await v.remove();
 try { await d.getContainer('nope').inspect(); assert(0) } catch (x) { assert.equal(x.statusCode,404); console.log(x.json) }
 let ps = await new Promise((r,j)=>d.pull('localhost:1/x:1',(err,st)=>{ if (err) return r(err); d.modem.followProgress(st,(e2)=>r(e2)) })); assert(ps.statusCode>=400); console.log("pull:", ps.json);
 console.log('ALL OK'); process.exit(0)
})().catch(e => { console.error(e); process.exit(1) });
